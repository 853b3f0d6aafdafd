"""Records of runs (files, never a model) become tables, pictures and pages."""
