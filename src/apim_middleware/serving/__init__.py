"""What a gateway needs where it is served: answers for front servers and orchestrators, and its certificate."""
