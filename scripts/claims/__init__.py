"""The claims of the documents, each measured, judged and put on a page.

A claim is a file `X_name.py` here, where X is its letter on the command line. It has the texts
TITLE, CLAIM, EXPERIMENT and perhaps NOTES, and two functions. `measure(lab)` names its measurements
and returns their values, plain data. `judge(found)` yields findings, tables and plots that follow
from these values alone. The runner (lab, reproduce, page) does the rest.

Legend: `size` is how large the experiments are: full, quick, or micro (which only tests the
machinery and judges nothing).
"""
