"""Searches around the rule with keras-tuner.

```bash
keras-bit search photos --trials 12 --vary rate,length,mixup,crop --output photos-search
```

Trial 0 is the rule itself. `--vary` takes `rate`, `length`, `mixup`, `crop`, `batch`, `warmup`,
`preset`, `frozen`, `decay` and `dropout`, also with values of your own, `--vary rate=0.3,1,3
--vary preset=m-r50x1,m-r101x1`; `--tuner` is `random`, `bayesian`, `grid` or `hyperband`; options
of data, rule and model hold for all trials.
At the end the two best trials and the rule are trained again with `--repeats` further seeds, and
the rule remains the outcome unless one of the two is better by more than the noise. The last line
is the command that trains with the outcome, `keras-bit fine-tune photos --rule
photos-search/best_rule.json` and the options beside the rule.
A terminal shows the trials as a table; elsewhere there is a line for each. A search that was
stopped or killed resumes when the same command is given again; more `--trials` continue a
finished one.

Trials are compared on the validation images, whose accuracy is therefore too good for the best of
them: judge the final model on images that the search has not seen.

Several trials at a time on one machine, `--workers 4`: as many processes share the trials, the
images in a cache, the processor's cores, and the GPUs where there are several. A process that
dies is started again, and its trial resumes.

On several machines start the command on each of them, with the variables of keras-tuner's
distributed search, and `--output` and `--cache-dir` on a disk that they share (the address is not
used):

```bash
export KERASTUNER_ORACLE_IP=10.0.0.1 KERASTUNER_ORACLE_PORT=8000
# On one of them, which waits for the others:
KERASTUNER_TUNER_ID=chief keras-bit search photos --output search --cache-dir cache
# On each of the others, with its own number:
KERASTUNER_TUNER_ID=worker0 keras-bit search photos --output search --cache-dir cache
```

The output folder holds `study.html`, the report; `best_rule.json`, the outcome; `trials.csv`, a
row for each trial; `study.json`, what is searched; `trials`, a JSON file with the history of each
trial, and the weights of the `--keep` best; `repeats`, the runs with further seeds; and `study`,
the pictures of the report.
"""

from keras_bit.tuning.hypermodel import HyperBiT
from keras_bit.tuning.search import search
from keras_bit.tuning.trials import SearchResult, SearchTrial

__all__ = ["HyperBiT", "SearchResult", "SearchTrial", "search"]
