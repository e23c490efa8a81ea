"""Two runs compared, as `backproof diff OLD NEW` does: between them the weight gradient of every layer was halved, and no log says so."""

from dataclasses import replace

import backproof as bp
from backproof.compare.comparison import compare_reports
from backproof.compare.formats import as_text

torch = bp.adapters.load("torch")


class Changed:
    """The torch adapter of a later version, with a regression."""

    name = "torch"

    def run(self, case: bp.Case) -> bp.Trace:
        trace = torch.run(case)
        wrong = [replace(s, d_params={**s.d_params, "weight": s.d_params["weight"] / 2}) if "weight" in s.d_params else s
                 for s in trace.layers]
        return replace(trace, layers=tuple(wrong))


old = bp.verify(adapters=["torch"], cases=32, layers=["Linear", "ReLU"], reports=None)
new = bp.verify(adapters=[Changed()], cases=32, layers=["Linear", "ReLU"], reports=None)
print(as_text(compare_reports(old.describe(), new.describe(), ("before", "after"))))
