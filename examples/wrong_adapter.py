"""A mistake planted on purpose: the weight gradient is divided by the batch size once too often."""

from dataclasses import replace

import backproof as bp

torch = bp.adapters.load("torch")


class Mistaken:
    """The torch adapter with a mistake in every layer that has a weight."""

    name = "torch:mistaken"

    def run(self, case: bp.Case) -> bp.Trace:
        trace = torch.run(case)
        wrong = [replace(s, d_params={**s.d_params, "weight": s.d_params["weight"] / case.batch}) if "weight" in s.d_params else s
                 for s in trace.layers]
        return replace(trace, layers=tuple(wrong))


print(bp.verify(adapters=[Mistaken()], cases=32, layers=["Linear", "ReLU"], reports=None))
