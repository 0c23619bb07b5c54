"""What adaptation did to the senses: word alignment, topology, Procrustes, ablation, figures."""
