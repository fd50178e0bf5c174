"""The response cache: what is kept, whom it is for, how it is asked for anew, and how it is taken away."""
