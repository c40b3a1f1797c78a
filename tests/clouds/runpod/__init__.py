"""RunPod's REST API v2 as its documents tell it."""
