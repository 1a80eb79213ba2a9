"""The claims of the documents, each measured, judged and put on a page.

A claim is a file `X_name.py` here, X the letter that it is asked for by. It holds four texts
(TITLE, CLAIM, EXPERIMENT, NOTES) and two functions: `measure(lab)` does or looks up whatever it
needs and gives plain values; `judge(found)` makes of these, and of nothing else, findings with a
verdict each, tables and plots. The page is made from the values that lie in JSON files.

Legend: `size` is how large the experiments are: full, quick, or micro (which only shows that the
machinery works and judges nothing).
"""
