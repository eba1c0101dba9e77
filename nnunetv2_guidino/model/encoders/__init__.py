"""Pretrained vision transformers as encoders of tokens."""
