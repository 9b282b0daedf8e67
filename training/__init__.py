"""What a training run needs around its loop: data, flags, run folder, callbacks, previews."""
