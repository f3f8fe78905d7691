"""Camera frames: messages and files in, the model's 64x64 input out."""
