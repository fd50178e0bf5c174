"""What is kept between requests: counters and entries, in memory and beyond."""
