"""The grammar of the demo source: lexicon, trees, and how each language says a tree."""
