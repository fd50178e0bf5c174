"""How counters in memory count: a book for each limit, and the room that all books share."""
