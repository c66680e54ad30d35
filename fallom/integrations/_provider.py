"""Which provider answers at a base URL: ``gen_ai.provider.name``, to the best of our knowledge."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["provider_of", "server_of"]

# Host suffix -> name; the semantic conventions' well-known names where there is one.
_PROVIDERS = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "cognitiveservices.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "models.ai.azure.com": "azure.ai.inference",
    "api.anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "amazonaws.com": "aws.bedrock",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.x.ai": "x_ai",
    "api.mistral.ai": "mistral_ai",
    "api.perplexity.ai": "perplexity",
    "api.cohere.ai": "cohere",
    "api.cohere.com": "cohere",
    "ml.cloud.ibm.com": "ibm.watsonx.ai",
    "openrouter.ai": "openrouter",
    "api.together.xyz": "together_ai",
    "api.fireworks.ai": "fireworks_ai",
}


def provider_of(base_url: str, default: str) -> str:
    """Give the provider behind ``base_url``; ``default`` where the host says nothing (a proxy)."""
    host = (urlsplit(base_url).hostname or "").lower()
    labels = host.split(".")
    for start in range(len(labels) - 1):
        name = _PROVIDERS.get(".".join(labels[start:]))
        if name:
            return name
    # Vertex AI's regional hosts put the region into the first label: us-east5-aiplatform.
    return "gcp.vertex_ai" if host.endswith("-aiplatform.googleapis.com") else default


def server_of(base_url: str) -> tuple[str, int]:
    """Give host and port of ``base_url``; the scheme's own port where it names none."""
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
