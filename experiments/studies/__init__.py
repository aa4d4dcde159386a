"""Published claims and the code that tests them, by families; ``study.py`` says what a study is."""
