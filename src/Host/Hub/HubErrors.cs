namespace Sluice.Hub;

/// <summary>Why a model could not be had from the hub.</summary>
public enum HubError
{
    /// <summary>What was asked for is not a valid name, or names several things.</summary>
    Request,

    /// <summary>There is no such model, revision or file (or it is private, and the token does not open it).</summary>
    NotFound,

    /// <summary>The hub wants a token, or the model's owner must allow the download first.</summary>
    Forbidden,

    /// <summary>The hub cannot be reached, breaks off, or refuses for now.</summary>
    Network,

    /// <summary>What arrived is not what the hub lists: length or checksum differ.</summary>
    Corrupt,

    /// <summary>The hub's answer is not what its API gives, or names files that must not be written.</summary>
    Protocol,

    /// <summary>The cache folder cannot be written: no space, or no permission.</summary>
    Disk,
}

/// <summary>A model cannot be had from the hub. The text tells what, where, and what to do.</summary>
public sealed class HubException : SluiceModelException
{
    /// <summary>Makes an exception.</summary>
    /// <param name="kind">Why.</param>
    /// <param name="message">What happened, where, and what to do.</param>
    /// <param name="inner">What caused it.</param>
    public HubException(HubError kind, string message, Exception? inner = null)
        : base(message, inner) => Kind = kind;

    /// <summary>Why.</summary>
    public HubError Kind { get; }
}
