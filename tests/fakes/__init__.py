"""Hand-written stand-ins for what is outside the core. They are scripted by the test and keep what was asked of them."""
