"""The page on which a person looks at what a run guesses of a folder, and corrects it."""
