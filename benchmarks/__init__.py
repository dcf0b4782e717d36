"""How fast is it, against what? One file a subject; rivals and Tandem alternate in the same run."""
