"""A pipeline of two steps: split a text into words, then score all words in batches.

Serve it:    asyncline serve app:graph --config config.yml
Look at it:  asyncline check app:graph --config config.yml
"""

from asyncline import Each, Graph, Op, Request, Text, op


# A plain function becomes an Op. It takes microseconds, so it may run on the event loop itself;
# without cpu="inline" it would run in a pool of processes.
@op(cpu="inline")
def words(text: str) -> list[str]:
    return text.split()


class Score(Op):
    """A number for each word. Put your model here."""

    batch_size = 32  # most samples in a batch; change it in config.yml without touching the code
    cpu = "inline"  # where preprocess and postprocess run: process, thread or inline

    def load_model(self, device: str) -> dict[str, int]:
        """Once per replica, in the thread that runs `process`; what it returns becomes self.model."""
        return {letter: place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz", 1)}

    def preprocess(self, words: list[str]) -> Each:
        """One request. Each(...) makes a sample of every word; samples of all requests share batches."""
        return Each(words)

    def process(self, batch: list[str]) -> list[int]:
        """One batch: a list of samples in, a list as long out."""
        return [sum(self.model.get(letter, 0) for letter in word.lower()) for word in batch]

    def postprocess(self, scores: list[int], words: list[str]) -> list[dict[str, object]]:
        """One request again: its results in order, then what preprocess got."""
        return [{"word": word, "score": score} for word, score in zip(words, scores, strict=True)]


request = Request(text=Text(example="hello pipeline"))
graph = Graph("my_graph", Score(words(request.text)))
