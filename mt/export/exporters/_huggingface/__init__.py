"""Parts of the export to transformers."""
