"""One page or tab each: widgets and their handlers. A view's docstring is the text beside it,
except that Explore begins with the viewer itself.

To add one: a module with `build(page: Page) -> None`, and one line in `explorer.ui.TABS`.
"""
