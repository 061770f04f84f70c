"""Who said so: signatures of commits and tags, judged by the keys that the agent's settings name.

`policy.Trust` is the door; below it `signed`: what of an object is signed. The formats are those of
`agent.kit.signatures`. Nothing here fetches; the libraries are loaded when the first signature is judged.
"""
