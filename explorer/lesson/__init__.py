"""The guided lesson, "How it works": one token followed from pixels to the answer, in fifteen screens, and of
a clip through time in five more.

Its steps are data (`steps.STEPS`): words, a formula, the lines of code that do it, and a function
that takes every number of the screen from the trace. `lesson_of` makes one JSON of them, which the same
JavaScript (js/) draws in the app, in a page of one file and in a notebook.
"""
