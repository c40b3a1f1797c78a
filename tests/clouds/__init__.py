"""Emulated clouds: a vendor's API as its documents tell it, with real boxes behind it and a switch
for every misbehaviour that was ever reported. Written against the documents, never against our
own providers."""
