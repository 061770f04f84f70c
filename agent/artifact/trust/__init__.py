"""Who vouches for an artifact: signatures over the very bytes, or the very manifest, that is deployed.

`rules` (whose signatures the agent's settings require), `signatures` (the door: what is required of one
artifact, and where its signatures lie), `case` and `witness` (judge bytes on their way), `image` (cosign's
signatures in registries), `marks` (what is remembered of who signed what).
"""
