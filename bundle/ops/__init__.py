"""What runs inside one-off containers of the ops image: a JSON document comes in on standard input, one goes out."""
