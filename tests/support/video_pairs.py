"""What a model behind an endpoint writes about a clip of `moving_pictures`: one pair for each aspect of the paper."""

PAIRS = [
    {"aspect": "temporal", "question": "How does the speed change?", "answer": "It stays the same."},
    {"aspect": "spatial", "question": "Where does it move?", "answer": "To the right."},
    {"aspect": "objects", "question": "What colour is it?", "answer": "It is red."},
    {"aspect": "order", "question": "What comes last?", "answer": "A dog barks."},
]
