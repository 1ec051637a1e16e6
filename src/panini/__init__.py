"""Panini-Net: face restoration that interpolates between a photo and a face prior."""
