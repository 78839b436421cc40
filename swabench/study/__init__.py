"""What is asked: a study's settings, how they are loaded and checked, and what runs depend on."""
