"""Feed pairs of tiles to Keras: batches read ahead by threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras


def feed(pairs, workers=1):
    """Make the data set for Keras's `fit` and `evaluate` from `dataset.TilePairs`."""
    return for_fit(Batches(pairs, workers))


def for_fit(batches):
    """Return a Keras PyDataset; on TensorFlow convert it by `make_dataset`."""
    if keras.backend.backend() != "tensorflow":
        return batches
    return make_dataset(batches)


class Batches(keras.utils.PyDataset):
    """`dataset.TilePairs` as a Keras data set; ``workers`` threads read ahead.

    Keras's own threads may start before an epoch, when Keras inspects a first batch. The batches
    that they have read by then would replace the first batches of the epoch.
    """

    def __init__(self, pairs, workers=1):
        super().__init__()
        self.pairs = pairs
        self.ahead = 2 * workers + 2  # batches read in advance
        self.threads = ThreadPoolExecutor(workers)
        self.lock = threading.Lock()
        self.coming = {}  # {(epoch, number): future of a batch}

    def __len__(self):
        """Batches per epoch."""
        return len(self.pairs)

    def __getitem__(self, batch):
        """Return batch number ``batch`` of the epoch and start reading the next ones."""
        epoch = self.pairs.epoch
        with self.lock:  # with several GPUs TensorFlow calls it from several threads
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
    """Make a tf.data.Dataset from a Keras PyDataset; each iteration over it is an epoch.

    Keras's own conversion enables tf.data's autotuning. Its thread sleeps for 10, 20, 40 ms, ... up
    to a minute, and the end of an epoch sometimes waits for it: of 16 epochs of 4 s six took up to
    5.2 s, and one of 9 s took 20 s.
    """

    import tensorflow as tf  # only this backend needs it

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
