"""A page on which senses are looked at: what each tab computes, how it is shown, and the page itself."""
