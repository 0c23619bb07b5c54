"""The plain, slow, obviously right implementation of every formula."""
