"""Feed pairs of tiles to Keras: batches read ahead by threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras


def feed(pairs, workers=1):
    """`dataset.TilePairs` as Keras's `fit` and `evaluate` shall get them: their `Batches`."""
    return for_fit(Batches(pairs, workers))


def for_fit(batches):
    """A Keras PyDataset itself; on TensorFlow the tf.data.Dataset of `feeding.make_dataset`."""
    if keras.backend.backend() != "tensorflow":
        return batches
    return make_dataset(batches)


class Batches(keras.utils.PyDataset):
    """`dataset.TilePairs` as a Keras data set; ``workers`` threads read ahead.

    They are not Keras's own. Those may be started before an epoch begins, where Keras looks at a
    first batch, and what they have read by then comes at the beginning of the epoch, in the place
    of as many batches of its own.
    """

    def __init__(self, pairs, workers=1):
        super().__init__()
        self.pairs = pairs
        self.ahead = 2 * workers + 2  # batches that are read or being read
        self.threads = ThreadPoolExecutor(workers)
        self.lock = threading.Lock()
        self.coming = {}  # by (epoch, number): a future batch

    def __len__(self):
        """Batches an epoch."""
        return len(self.pairs)

    def __getitem__(self, batch):
        """Batch number ``batch`` of the epoch; those after it begin to be read."""
        epoch = self.pairs.epoch
        with self.lock:  # TensorFlow asks from several threads where there are several GPUs
            known = self.coming
            self.coming = {}
            for number in range(batch, min(batch + self.ahead, len(self))):
                key = epoch, number
                self.coming[key] = known.get(key) or self._start_reading(number)
            wanted = self.coming[epoch, batch]
        return wanted.result()

    def _start_reading(self, number):
        return self.threads.submit(self.pairs.__getitem__, number)


def make_dataset(batches):
    """A tf.data.Dataset of a Keras PyDataset; each time that it is iterated over is an epoch.

    Keras would make one, too, but one that tunes itself. tf.data has a thread for that which sleeps
    for 10, 20, 40 ms, ... up to a minute, and now and then the end of an epoch waits until it
    wakes: of 16 epochs of 4 s six took up to 5.2, and one of 9 s took 20.
    """

    import tensorflow as tf  # not on every machine, and only this backend needs it

    def read_epoch():
        for number in range(len(batches)):
            yield batches[number]

    def describe(array):
        return tf.TensorSpec((None, *array.shape[1:]), array.dtype)

    options = tf.data.Options()
    options.autotune.enabled = False
    signature = tf.nest.map_structure(describe, batches[0])
    dataset = tf.data.Dataset.from_generator(read_epoch, output_signature=signature)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(batches)))
    return dataset.prefetch(1).with_options(options)
