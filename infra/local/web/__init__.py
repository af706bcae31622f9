"""A small front end shows how a web page asks for activities and follows them.

`static/teamfit.js` is the part to copy. `__main__` stands for your own back end: it knows who is signed in, and gives
the page a token of a quarter of an hour. It runs in the local stack alone, on a port of its own, so that the page calls
the API from another origin, as yours will.
"""
