"""A recipe for the tests of commands."""

RECIPE = """\
languages: {source: en, target: de}
data:
  train: [{kind: text, source: a.en, target: a.de}]
  valid: {kind: text, source: b.en, target: b.de}
model: {d_model: 64}
training: {max_steps: 9000}
"""
