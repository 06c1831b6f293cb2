"""Fine-tuning: conversations in, a new model out."""
