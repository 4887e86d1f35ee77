using System.Net;
using System.Net.Http.Headers;

namespace Sluice.Hub;

/// <summary>A try that failed, and may succeed when it is made again.</summary>
internal sealed class RetryException(string message, TimeSpan? after = null, Exception? inner = null) : Exception(message, inner)
{
    /// <summary>How long the server asks to wait; null: it does not tell.</summary>
    public TimeSpan? After { get; } = after;
}

/// <summary>Requests to the hub: redirects by hand, so that the token stays with the hub; failures as typed errors.</summary>
internal sealed class HubTransport(HttpClient http, HubOptions options)
{
    private const int MostRedirects = 10;
    private static readonly TimeSpan MostPatience = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan MostBackoff = TimeSpan.FromSeconds(30);

    /// <summary>A client that follows no redirect by itself.</summary>
    public static HttpClient CreateClient() => new(new SocketsHttpHandler { AllowAutoRedirect = false, UseCookies = false, ConnectTimeout = TimeSpan.FromSeconds(30) })
    {
        Timeout = Timeout.InfiniteTimeSpan, // a download takes its time; silence is measured instead
    };

    /// <summary>An address below the hub's.</summary>
    public Uri Address(string path) => new(options.Endpoint.AbsoluteUri.TrimEnd('/') + "/" + path);

    /// <summary>Runs tries until one succeeds, or <see cref="HubOptions.Attempts"/> in a row brought nothing.</summary>
    /// <param name="what">What is fetched, for errors.</param>
    /// <param name="attempt">One try; it throws <see cref="RetryException"/> where another may help.</param>
    /// <param name="progress">A number that grows as bytes come.</param>
    /// <param name="cancellation">Ends the waiting, too.</param>
    public async Task<T> RetryAsync<T>(string what, Func<Task<T>> attempt, Func<long> progress, CancellationToken cancellation)
    {
        long reached = progress();
        for (int failures = 1; ; failures++)
        {
            try
            {
                return await attempt().ConfigureAwait(false);
            }
            catch (RetryException e)
            {
                cancellation.ThrowIfCancellationRequested();
                if (progress() > reached)
                {
                    (reached, failures) = (progress(), 1);
                }

                if (failures >= options.Attempts || e.After > MostPatience)
                {
                    throw new HubException(HubError.Network, $"{what}: {e.Message}; gave up after {failures} tries in a row. Try again later: what has come is kept", e.InnerException);
                }

                TimeSpan backoff = TimeSpan.FromSeconds(Math.Min(Math.Pow(2, failures - 1), MostBackoff.TotalSeconds));
                await options.Delay(e.After > backoff ? e.After.Value : backoff, cancellation).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Asks for an address, and follows redirects. The answer's body is still to be read.</summary>
    /// <exception cref="RetryException">The connection or the server failed for now.</exception>
    /// <exception cref="HubException">The hub refuses.</exception>
    public async Task<HttpResponseMessage> GetAsync(HubReference reference, Uri address, Action<HttpRequestHeaders>? headers, CancellationToken cancellation)
    {
        for (int redirects = 0; ; redirects++)
        {
            using HttpRequestMessage request = new(HttpMethod.Get, address);
            request.Headers.UserAgent.ParseAdd("sluice/0.1");
            request.Headers.AcceptEncoding.ParseAdd("identity");
            headers?.Invoke(request.Headers);
            bool own = IsHub(address);
            if (own && options.Token is { } token)
            {
                request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token);
            }

            HttpResponseMessage response = await SendAsync(request, cancellation).ConfigureAwait(false);
            if ((int)response.StatusCode is >= 300 and < 400 and not 304 && response.Headers.Location is { } location)
            {
                Uri next = location.IsAbsoluteUri ? location : new Uri(address, location);
                response.Dispose();
                if (redirects == MostRedirects || (next.Scheme != Uri.UriSchemeHttps && next.Scheme != address.Scheme) || (next.Scheme != Uri.UriSchemeHttps && next.Scheme != Uri.UriSchemeHttp))
                {
                    throw new HubException(HubError.Protocol, $"{reference}: the hub redirects {(redirects == MostRedirects ? "too often" : "to an address that is not safe")}");
                }

                address = next;
                continue;
            }

            if (response.IsSuccessStatusCode || response.StatusCode == HttpStatusCode.RequestedRangeNotSatisfiable)
            {
                return response;
            }

            using (response)
            {
                throw Refused(reference, response, own);
            }
        }
    }

    /// <summary>Reads from an answer; a silence that is too long is a connection that was cut.</summary>
    public async ValueTask<int> ReadAsync(Stream body, Memory<byte> buffer, CancellationToken cancellation)
    {
        using CancellationTokenSource stall = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        stall.CancelAfter(options.Stall);
        try
        {
            return await body.ReadAsync(buffer, stall.Token).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or HttpRequestException || (e is OperationCanceledException && !cancellation.IsCancellationRequested))
        {
            throw new RetryException("the connection was cut", null, e);
        }
    }

    private bool IsHub(Uri address) =>
        address.Scheme == options.Endpoint.Scheme && address.Port == options.Endpoint.Port && string.Equals(address.IdnHost, options.Endpoint.IdnHost, StringComparison.OrdinalIgnoreCase);

    private async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellation)
    {
        using CancellationTokenSource stall = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        stall.CancelAfter(options.Stall);
        try
        {
            return await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, stall.Token).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or HttpRequestException || (e is OperationCanceledException && !cancellation.IsCancellationRequested))
        {
            throw new RetryException($"{request.RequestUri!.Host} cannot be reached ({e.Message})", null, e);
        }
    }

    private Exception Refused(HubReference reference, HttpResponseMessage response, bool own)
    {
        int status = (int)response.StatusCode;
        string code = Header(response, "X-Error-Code"), said = Header(response, "X-Error-Message");
        string detail = said.Length > 0 ? $" ({HubReference.Shown(said)})" : "";

        // A signed address of the CDN that ran out: the next try gets a new one.
        if (status is 408 or 425 or 429 or >= 500 || !own)
        {
            RetryConditionHeaderValue? after = response.Headers.RetryAfter;
            return new RetryException($"{(own ? "the hub" : "its file server")} answers {status}{detail}", after?.Delta ?? (after?.Date is { } date ? date - DateTimeOffset.UtcNow : null));
        }

        string page = $"{options.Endpoint.AbsoluteUri.TrimEnd('/')}/{reference.Model}";
        return (status, code) switch
        {
            (_, "GatedRepo") => new HubException(HubError.Forbidden, options.Token is null
                ? $"{reference.Model} is gated{detail}: ask for access at {page}, then set HF_TOKEN to a token of yours"
                : $"{reference.Model} is gated, and the token in use has no access{detail}: ask for it at {page}"),
            (404, "RevisionNotFound") => new HubException(HubError.NotFound, $"{reference.Model} has no revision '{reference.Revision}'{detail}"),
            (404, "EntryNotFound") => new HubException(HubError.NotFound, $"{reference}: there is no such file{detail}"),
            (401, _) => new HubException(HubError.Forbidden, options.Token is null
                ? $"{reference.Model} does not exist, or is private or gated{detail}: check its name; for a private model set HF_TOKEN to a token of yours"
                : $"the hub does not accept the token in use for {reference.Model}{detail}: check the name and HF_TOKEN"),
            (403, _) => new HubException(HubError.Forbidden, $"the hub forbids {reference.Model}{detail}: see {page}"),
            (404, _) => new HubException(HubError.NotFound, $"there is no {reference.Model} on {options.Endpoint.Host}, or it is private{detail}"),
            _ => new HubException(HubError.Protocol, $"{reference}: the hub answers {status}{detail}"),
        };
    }

    private static string Header(HttpResponseMessage response, string name) => response.Headers.TryGetValues(name, out IEnumerable<string>? values) ? values.First() : "";
}
