"""Checks of the reference itself, each against another way to the same number, in float64."""

import math

import torch

import ratplus_reference as ref


def uniform(*shape):
    return torch.rand(*shape, dtype=torch.float64) * 2 - 1


def check(what, difference, bound):
    if not difference <= bound:
        raise SystemExit(f"self-test: {what}: off by {difference:.3g}, allowed {bound:.3g}")
    print(f"  {what}: {difference:.1e} (allowed {bound:.0e})")


def recurrence_closed_form():
    """h_t = sum over s <= t of (1 - g_s) x_s prod over s < r <= t of g_r."""
    gate, x = torch.sigmoid(3 * uniform(2, 20, 3)), uniform(2, 20, 3)
    h = ref.recurrence(gate, x)
    expected = torch.zeros_like(h)
    for t in range(20):
        for s in range(t + 1):
            expected[:, t] += (1 - gate[:, s]) * x[:, s] * gate[:, s + 1 : t + 1].prod(dim=1)
    check("recurrence against its closed form", (h - expected).abs().max().item(), 1e-14)


def recurrence_backward():
    """s_t = e_t + g_{t+1} s_{t+1}; dx_t = (1 - g_t) s_t; dg_t = s_t (h_{t-1} - x_t); df = dg g (1 - g)."""
    f, x, e = (3 * uniform(2, 20, 3)).requires_grad_(), uniform(2, 20, 3).requires_grad_(), uniform(2, 20, 3)
    gate = torch.sigmoid(f)
    h = ref.recurrence(gate, x)
    expected_df, expected_dx = torch.autograd.grad(h, (f, x), e)
    df, dx, carry = torch.empty_like(f), torch.empty_like(x), torch.zeros_like(x[:, 0])
    for t in reversed(range(20)):
        g, before = gate[:, t], h[:, t - 1] if t else torch.zeros_like(h[:, 0])
        s = e[:, t] + carry
        dx[:, t] = (1 - g) * s
        df[:, t] = s * (before - x[:, t]) * g * (1 - g)
        carry = g * s
    worst = max((df - expected_df).abs().max().item(), (dx - expected_dx).abs().max().item())
    check("reversed scan against autograd", worst, 1e-14)


def masks():
    """Every pattern of a small grid against its definition, one pair of positions at a time."""
    tokens, wrong = 40, 0
    for dilation in (None, 1, 2, 5, 16, 64):
        for window in (0, 1, 7, 50):
            for sinks in (0, 1, 4):
                mask = ref.Pattern(dilation, window, sinks).mask(tokens)
                for t in range(tokens):
                    attended = {s for s in range(t + 1) if t - s <= window} | set(range(min(sinks, t + 1)))
                    if dilation is not None:
                        attended |= set(range(dilation - 1, t + 1, dilation))
                    wrong += set(mask[t].nonzero().flatten().tolist()) != attended
    check("rows of masks unlike the definition", wrong, 0)


def loss_by_hand():
    config = ref.Config(layers=1, width=8, head_dim=4, vocab_size=7)
    tokens = torch.tensor([[3, 2, 2, 5, 1], [2, 4, 6, 0, 2]])
    logits = uniform(2, 4, 7)
    terms = [
        math.log(sum(math.exp(z) for z in logits[b, t].tolist())) - logits[b, t, tokens[b, t + 1]].item()
        for b in range(2)
        for t in range(4)
        if tokens[b, t] != config.end_of_text
    ]
    expected = sum(terms) / len(terms)
    check("loss against its sum by hand", abs(ref.loss_of_logits(config, logits, tokens).item() - expected), 1e-14)


def central_differences():
    """The whole model's gradient in random directions, one a parameter."""
    config = ref.Config(layers=2, width=8, head_dim=4, vocab_size=11)
    plan = ref.parse_plan("4,0,0|none,3,1;2,1,1")
    tokens = torch.randint(0, 11, (2, 18))
    weights = {n: uniform(*s).requires_grad_() for n, s in ref.parameter_shapes(config).items()}
    _, gradients, _ = ref.loss_and_gradients(config, weights, tokens, plan)

    def loss_at(name, direction, distance):
        moved = {n: w.detach() + distance * direction if n == name else w.detach() for n, w in weights.items()}
        return ref.loss_of_logits(config, ref.forward(config, moved, tokens[:, :-1], plan), tokens).item()

    worst, step = 0.0, 1e-4
    for name, weight in weights.items():
        direction = uniform(*weight.shape)
        # Fourth order: the remaining error is about step^4 of the fifth derivative.
        near = loss_at(name, direction, step) - loss_at(name, direction, -step)
        far = loss_at(name, direction, 2 * step) - loss_at(name, direction, -2 * step)
        expected = (8 * near - far) / (12 * step)
        scale = gradients[name].norm().item() * direction.norm().item()
        worst = max(worst, abs((gradients[name] * direction).sum().item() - expected) / scale)
    check("model gradient against central differences", worst, 1e-9)


def optimizer_against_torch():
    """Ten clipped updates, beside torch.optim.AdamW and torch's clip_grad_norm_."""
    training = ref.Training(steps=10, peak_lr=1e-2)
    weights = {"matrix": uniform(5, 4), "vector": uniform(6)}
    theirs = [w.clone().requires_grad_() for w in weights.values()]
    ours = ref.AdamW(training, weights)
    torch_adamw = torch.optim.AdamW(theirs, lr=1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for n in range(10):
        lr = training.learning_rate(n)
        gradients = {name: uniform(*w.shape) * (0.1 if n % 2 else 2) for name, w in weights.items()}
        for weight, g in zip(theirs, gradients.values()):
            weight.grad = g.clone()
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        torch_adamw.param_groups[0]["lr"] = lr
        torch_adamw.step()
        norm = math.sqrt(sum(g.square().sum().item() for g in gradients.values()))
        factor = min(1.0, 1 / (norm + 1e-6))
        ours.update({name: g * factor for name, g in gradients.items()}, lr)
    worst = max((a - b).abs().max().item() for a, b in zip(weights.values(), theirs))
    check("AdamW and clipping against torch's", worst, 1e-14)


def parameter_counts():
    published = {(24, 2048): 1_474_922_496, (32, 4096): 7_647_531_008}
    for (layers, width), count in published.items():
        config = ref.Config(layers=layers, width=width, head_dim=128, vocab_size=32000)
        check(f"parameters of the {layers}-layer model", abs(ref.parameter_count(config) - count), 0)


def run():
    torch.manual_seed(1)
    for test in (recurrence_closed_form, recurrence_backward, masks, loss_by_hand, central_differences,
                 optimizer_against_torch, parameter_counts):
        test()
    print("self-test: all agree")
