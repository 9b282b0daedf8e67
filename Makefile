# make test: everything from nothing: virtual environment, packages, lint, tests.
PYTHON ?= python3
VENV ?= .venv

.PHONY: help install test lint demo figures clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(VENV)/.installed ## virtual environment with all packages, in $(VENV)

$(VENV)/.installed: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -r requirements-dev.txt
	touch $@

test: install lint ## lint and run all tests
	$(VENV)/bin/python -m pytest -q -n logical --maxprocesses 4 --dist worksteal --durations=5

lint: install
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .

RUN = $(VENV)/bin/python
DEMO ?= runs/demo
DEMO_RUN = $(DEMO)/keyboard_acoustic_2_guitar_acoustic
DEMO_TRAIN = train.py --dataset_path $(DEMO)/features --runs_path $(DEMO) \
	--origin keyboard_acoustic --target guitar_acoustic \
	--filters 16 --batch_size 4 --validation_split 0.06 --seed 111 --cache --preview_every 0
DEMO_MINUTES ?= 5

listen: $(VENV)/.listen ## hear the shipped models: an embedded piano (MIDI, sampled grand) as guitar, strings, synth lead
	$(RUN) predict.py --input docs/audio/piano.ogg --model guitar strings synth \
		--output runs/listen --page runs/listen/page
	@$(RUN) -m webbrowser -t "file://$(CURDIR)/runs/listen/page/index.html" >/dev/null 2>&1 || true

demo: $(VENV)/.demo ## train on the embedded notes and pieces, convert, evaluate: about ten minutes
	@echo "Render and cut the embedded pieces (1 min), train $(DEMO_MINUTES) min, convert, evaluate (1 min)."
	mkdir -p $(DEMO)/midi/pieces
	cp -p demo/midi/*.mid $(DEMO)/midi/pieces
	$(RUN) demo/practice.py --midi_path $(DEMO)/midi/practice --pieces 60 --seconds 45
	$(RUN) synthesize_audios.py --nsynth_path demo/notes --midi_path $(DEMO)/midi \
		--audios_path $(DEMO)/audios --instruments keyboard_acoustic guitar_acoustic
	$(RUN) compute_features.py --audios $(DEMO)/audios --features $(DEMO)/features
	$(RUN) $(DEMO_TRAIN) --minutes $(DEMO_MINUTES) --gen_lr 1e-3 --disc_lr 1e-4
	$(RUN) predict.py --model $(DEMO_RUN) \
		--input $(DEMO)/audios/keyboard_acoustic/pieces/greensleeves.wav \
		--output $(DEMO)/greensleeves_as_guitar.wav
	$(RUN) evaluate.py --model $(DEMO_RUN) --audios_path $(DEMO)/audios --report $(DEMO)/page
	@$(RUN) demo/next_steps.py --run $(DEMO_RUN) --page $(DEMO)/page

figures: ## draw the figures of README and docs, from the embedded data, what make demo made, and pretrained/
	@test -f $(DEMO_RUN)/generator.keras || { echo "make figures: $(DEMO_RUN): no trained model; run make demo first" >&2; exit 2; }
	test -f $(DEMO_RUN)/lr_finder/both.csv || $(RUN) $(DEMO_TRAIN) --findlr --findlr_steps 400
	$(RUN) docs/figures.py --run $(DEMO_RUN)

# What is installed already, by requirements.txt or for listening by requirements-predict.txt, is taken.
$(VENV)/.listen:
	@$(RUN) -c "import av, h5py, matplotlib, pyloudnorm, soxr, tqdm" 2>/dev/null || $(MAKE) $(VENV)/.demo
	@touch $@

$(VENV)/.demo: requirements.txt
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(RUN) -c "import av, joblib, librosa, pretty_midi, pyloudnorm, tqdm" 2>/dev/null || { \
		echo "Installing packages in $(VENV): a download of about 800 MB, some minutes without a word."; \
		$(RUN) -m pip install --quiet --upgrade pip && $(RUN) -m pip install --quiet -r requirements.txt; }
	@touch $@

clean: ## delete the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis
