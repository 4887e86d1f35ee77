namespace Sluice;

/// <summary>A request that could never run, whatever else runs: it was refused, and nothing has changed.</summary>
public sealed class RequestTooLargeException : ArgumentException
{
    internal RequestTooLargeException(int tokens, int context, int pages, int totalPages)
        : base(tokens > context
            ? $"{tokens:N0} tokens are wanted, and a sequence may have {context:N0}: shorten the prompt, ask for fewer tokens, or open the engine with a longer context"
            : $"{tokens:N0} tokens need {pages:N0} pages, and the KV cache has {totalPages:N0} in all: ask for fewer tokens, or open the engine with a larger cache") =>
        (Tokens, Context, Pages, TotalPages) = (tokens, context, pages, totalPages);

    /// <summary>Tokens that the sequence could come to have.</summary>
    public int Tokens { get; }

    /// <summary>Tokens that a sequence may have.</summary>
    public int Context { get; }

    /// <summary>Pages that so many tokens take.</summary>
    public int Pages { get; }

    /// <summary>Pages of the cache.</summary>
    public int TotalPages { get; }
}
