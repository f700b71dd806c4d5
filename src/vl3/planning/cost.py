"""What a stage costs: GPU-hours, and their price where it is known."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """GPU-hours and their price."""

    gpu_hours: float
    """GPUs times hours."""
    amount: float | None
    """Their price; None if nobody has said what a GPU-hour costs."""
    currency: str
    """Currency of the price."""

    def in_words(self) -> str:
        """`1,234 GPU-hours, 3,085 USD`."""
        price = "price unknown" if self.amount is None else f"{self.amount:,.0f} {self.currency}"
        return f"{self.gpu_hours:,.0f} GPU-hours, {price}"


def cost_of(hours: float, gpus: int, price_per_gpu_hour: float | None, currency: str) -> Cost:
    """Cost of GPUs for some hours: 10 hours on 8 GPUs at 2.50 are 80 GPU-hours and 200."""
    gpu_hours = hours * gpus
    amount = None if price_per_gpu_hour is None else gpu_hours * price_per_gpu_hour
    return Cost(gpu_hours=gpu_hours, amount=amount, currency=currency)
