"""Where Kubernetes objects come from. Effects: files are read here and nowhere else in the pipeline."""
