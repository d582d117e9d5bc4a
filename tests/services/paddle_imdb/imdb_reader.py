"""What the example takes of Paddle's library of readers."""

import re


class IMDBDataset:
    """Reviews as the numbers of their words."""

    def load_resource(self, vocabulary):
        """:param vocabulary: a file with a word a line."""
        with open(vocabulary, encoding="utf-8") as lines:
            self.known = {line.strip(): number for number, line in enumerate(lines, 2)}

    def get_words_and_label(self, line):
        """From `i am very sad | 0`: the numbers of the words, 1 for an unknown one, and the label."""
        text, _, label = line.partition("|")
        words = re.findall(r"[^\W_]+|[^\w\s]", text.lower())
        return [self.known.get(word, 1) for word in words] or [1], [int(label or 0)]
