using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Sluice.Tests.Host;

/// <summary>A request that came: path with query, and headers by name.</summary>
internal sealed record HubRequest(string Path, Dictionary<string, string> Headers)
{
    public string? Header(string name) => Headers.GetValueOrDefault(name);
}

/// <summary>An answer. The connection is cut after so many bytes of the body, where that is set.</summary>
internal sealed record HubAnswer(int Status, byte[] Body, params (string Name, string Value)[] Headers)
{
    public int? CutAfter { get; init; }
}

/// <summary>An HTTP server on a free local port that answers what a function says, one request a connection.</summary>
internal sealed class HubServer : IDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly Func<HubRequest, HubAnswer> _answer;

    public HubServer(Func<HubRequest, HubAnswer> answer)
    {
        _answer = answer;
        _listener.Start();
        Address = new Uri($"http://127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}");
        _ = AcceptAsync();
    }

    public Uri Address { get; }

    public ConcurrentQueue<HubRequest> Requests { get; } = new();

    public void Dispose() => _listener.Stop();

    private async Task AcceptAsync()
    {
        while (true)
        {
            TcpClient client;
            try
            {
                client = await _listener.AcceptTcpClientAsync();
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException or InvalidOperationException)
            {
                return;
            }

            _ = Task.Run(() => ServeAsync(client));
        }
    }

    private async Task ServeAsync(TcpClient client)
    {
        using (client)
        {
            try
            {
                NetworkStream stream = client.GetStream();
                using StreamReader reader = new(stream, Encoding.ASCII, leaveOpen: true);
                string[] first = (await reader.ReadLineAsync() ?? "").Split(' ');
                Dictionary<string, string> headers = new(StringComparer.OrdinalIgnoreCase);
                while (await reader.ReadLineAsync() is { Length: > 0 } line)
                {
                    int colon = line.IndexOf(':', StringComparison.Ordinal);
                    headers[line[..colon]] = line[(colon + 1)..].Trim();
                }

                HubRequest request = new(first[1], headers);
                Requests.Enqueue(request);
                HubAnswer answer = _answer(request);
                StringBuilder head = new($"HTTP/1.1 {answer.Status} X\r\nContent-Length: {answer.Body.Length}\r\nConnection: close\r\n");
                foreach ((string name, string value) in answer.Headers)
                {
                    head.Append(name).Append(": ").Append(value).Append("\r\n");
                }

                await stream.WriteAsync(Encoding.UTF8.GetBytes(head.Append("\r\n").ToString()));
                await stream.WriteAsync(answer.Body.AsMemory(0, Math.Min(answer.CutAfter ?? answer.Body.Length, answer.Body.Length)));
                await stream.FlushAsync();
                client.Client.Shutdown(SocketShutdown.Send);
            }
            catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException)
            {
                // The client went away, as some tests want it.
            }
        }
    }
}
