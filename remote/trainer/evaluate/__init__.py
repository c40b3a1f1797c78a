"""How good a model is: loss, what it says, and how close its answers are to people's."""
