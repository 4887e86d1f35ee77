using System.Text;
using Sluice.Hub;

namespace Sluice.Tests.Host;

/// <summary>Pulling from a hub that breaks off, lies, refuses, and names files that it should not.</summary>
public sealed class HubTests
{
    private const string Gguf = "model-Q4_K_M.gguf";

    [Fact]
    public async Task File_arrives_through_cuts_and_goes_on_where_it_was()
    {
        using HubFake hub = new();
        hub.With(Gguf, HubFake.Bytes(300_000, 1));
        foreach (int cut in new[] { 100_000, 1, 70_001, 0, 0, 0, 50_000 })
        {
            hub.Cuts.Enqueue(cut);
        }

        List<HubProgress> seen = [];
        string path = await hub.PullAsync("org/model", progress: new Collect(seen));
        Assert.Equal(hub.File(Gguf), File.ReadAllBytes(path));
        string[] ranges = [.. hub.Cdn.Requests.Select(r => r.Header("Range") ?? "")];
        Assert.Equal(["", "bytes=100000-", "bytes=100001-", "bytes=170002-", "bytes=170002-", "bytes=170002-", "bytes=170002-", "bytes=220002-"], ranges);
        Assert.All(hub.Cdn.Requests.Skip(1), r => Assert.Equal(hub.Etag, r.Header("If-Range")));
        Assert.Equal(7, hub.Delays.Count);
        Assert.Equal(new HubProgress(Gguf, 300_000, 300_000, 300_000, 300_000), seen[^1]);
        Assert.Equal([Gguf], Directory.GetFiles(Path.GetDirectoryName(path)!).Select(Path.GetFileName));
    }

    [Fact]
    public async Task Second_pull_needs_no_content_and_offline_needs_no_hub()
    {
        using HubFake hub = new();
        hub.With(Gguf, "README.md");
        string path = await hub.PullAsync("org/model");
        int content = hub.ContentRequests;
        Assert.Equal(path, await hub.PullAsync("org/model"));
        Assert.Equal(content, hub.ContentRequests);
        int requests = hub.Hub.Requests.Count;
        Assert.Equal(path, await hub.PullAsync($"org/model@{HubFake.Commit}", hub.Options() with { Offline = true }));
        Assert.Equal(path, await hub.PullAsync("org/model", hub.Options() with { Offline = true }));
        Assert.Equal(requests, hub.Hub.Requests.Count);
        hub.Hub.Dispose();
        Assert.Equal(path, await hub.PullAsync("org/model:Q4_K_M"));
        HubException e = await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/other"));
        Assert.Equal(HubError.Network, e.Kind);
    }

    [Fact]
    public async Task Token_goes_to_the_hub_and_nowhere_else()
    {
        using HubFake hub = new();
        hub.With(Gguf);
        await hub.PullAsync("org/model", hub.Options() with { Token = "hf_secret" });
        Assert.Equal(2, hub.Hub.Requests.Count);
        Assert.All(hub.Hub.Requests, r => Assert.Equal("Bearer hf_secret", r.Header("Authorization")));
        HubRequest at = Assert.Single(hub.Cdn.Requests);
        Assert.DoesNotContain(at.Headers, h => h.Value.Contains("hf_secret", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Cancelled_pull_keeps_what_came_and_another_client_goes_on()
    {
        using HubFake hub = new();
        hub.With(Gguf, HubFake.Bytes(400_000, 2));
        hub.Cuts.Enqueue(150_000);
        using CancellationTokenSource stop = new();
        HubOptions waits = hub.Options() with
        {
            Delay = async (_, c) =>
            {
                await stop.CancelAsync();
                c.ThrowIfCancellationRequested();
            },
        };
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => hub.PullAsync("org/model", waits, cancellation: stop.Token));
        string partial = Path.Combine(hub.ModelFolder, HubFake.Commit, Gguf + ".partial");
        Assert.Equal(hub.File(Gguf)[..150_000], File.ReadAllBytes(partial));
        string path = await hub.PullAsync("org/model");
        Assert.Equal("bytes=150000-", hub.Cdn.Requests.Last().Header("Range"));
        Assert.Equal(hub.File(Gguf), File.ReadAllBytes(path));
        Assert.False(File.Exists(partial));
    }

    [Theory]
    [InlineData("\"two\"")]
    [InlineData("W/\"two\"")]
    public async Task Changed_etag_starts_afresh(string tag)
    {
        using HubFake hub = new();
        hub.With(Gguf, HubFake.Bytes(200_000, 3));
        hub.Cuts.Enqueue(90_000);
        hub.Change = a =>
        {
            hub.Etag = tag; // from the second answer on
            return a;
        };
        string path = await hub.PullAsync("org/model");
        Assert.Equal(hub.File(Gguf), File.ReadAllBytes(path));
        Assert.Equal(["", "bytes=90000-"], hub.Cdn.Requests.Take(2).Select(r => r.Header("Range") ?? ""));
    }

    [Fact]
    public async Task Part_with_another_etag_is_not_joined()
    {
        using HubFake hub = new();
        hub.With(Gguf, HubFake.Bytes(200_000, 5)).HonoursIfRange = false;
        hub.Cuts.Enqueue(90_000);
        hub.Change = a =>
        {
            hub.Etag = "\"two\"";
            return a;
        };
        string path = await hub.PullAsync("org/model");
        Assert.Equal(hub.File(Gguf), File.ReadAllBytes(path));
        Assert.Equal(["", "bytes=90000-", ""], hub.Cdn.Requests.Select(r => r.Header("Range") ?? ""));
    }

    [Fact]
    public async Task Partial_file_of_other_bytes_is_found_out_and_brought_again()
    {
        using HubFake hub = new();
        hub.With(Gguf, HubFake.Bytes(100_000, 4));
        string folder = Path.Combine(hub.ModelFolder, HubFake.Commit);
        Directory.CreateDirectory(folder);
        File.WriteAllBytes(Path.Combine(folder, Gguf + ".partial"), new byte[60_000]);
        File.WriteAllText(Path.Combine(folder, Gguf + ".partial.etag"), hub.Etag);
        string path = await hub.PullAsync("org/model");
        Assert.Equal(hub.File(Gguf), File.ReadAllBytes(path));
        Assert.Equal(["bytes=60000-", ""], hub.Cdn.Requests.Select(r => r.Header("Range") ?? ""));
    }

    [Fact]
    public async Task Wrong_checksum_is_told_and_nothing_is_kept()
    {
        using HubFake hub = new();
        hub.With(Gguf).ListedSha = new string('0', 64);
        HubException e = await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/model"));
        Assert.Equal(HubError.Corrupt, e.Kind);
        Assert.Contains(Gguf, e.Message, StringComparison.Ordinal);
        Assert.Equal(2, hub.Cdn.Requests.Count);
        Assert.False(File.Exists(Path.Combine(hub.ModelFolder, HubFake.Commit, Gguf)));
    }

    [Fact]
    public async Task Small_file_is_checked_by_the_name_that_git_gives_it()
    {
        using HubFake hub = new();
        hub.With("config.json", "model.safetensors");
        hub.First.Enqueue(new HubAnswer(200, Encoding.UTF8.GetBytes($$"""{"sha":"{{HubFake.Commit}}","siblings":[{"rfilename":"config.json","size":{{hub.File("config.json").Length}},"blobId":"{{new string('b', 40)}}"}]}""")));
        HubException e = await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/model:config.json"));
        Assert.Equal(HubError.Corrupt, e.Kind);
    }

    [Theory]
    [InlineData(-10)]
    [InlineData(10)]
    public async Task Wrong_length_is_told(int difference)
    {
        using HubFake hub = new();
        hub.With(Gguf);
        hub.Change = a => a with { Body = difference < 0 ? a.Body[..^10] : [.. a.Body, .. new byte[10]] };
        HubException e = await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/model"));
        Assert.Equal(HubError.Corrupt, e.Kind);
    }

    [Theory]
    [InlineData(401, "GatedRepo", HubError.Forbidden, "gated")]
    [InlineData(403, "GatedRepo", HubError.Forbidden, "gated")]
    [InlineData(401, "", HubError.Forbidden, "HF_TOKEN")]
    [InlineData(404, "RepoNotFound", HubError.NotFound, "there is no org/model")]
    [InlineData(404, "RevisionNotFound", HubError.NotFound, "no revision 'main'")]
    [InlineData(418, "", HubError.Protocol, "418")]
    public async Task Refusal_is_told_with_what_to_do(int status, string code, HubError kind, string says)
    {
        using HubFake hub = new();
        hub.First.Enqueue(new HubAnswer(status, [], ("X-Error-Code", code), ("X-Error-Message", "said so")));
        HubException e = await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/model"));
        Assert.Equal(kind, e.Kind);
        Assert.Contains(says, e.Message, StringComparison.Ordinal);
        Assert.Contains("said so", e.Message, StringComparison.Ordinal);
        Assert.Empty(hub.Delays);
    }

    [Fact]
    public async Task Busy_hub_is_asked_again_when_it_says()
    {
        using HubFake hub = new();
        hub.With(Gguf);
        hub.First.Enqueue(new HubAnswer(429, [], ("Retry-After", "17")));
        hub.First.Enqueue(new HubAnswer(503, []));
        await hub.PullAsync("org/model");
        Assert.Equal([TimeSpan.FromSeconds(17), TimeSpan.FromSeconds(2)], hub.Delays);
    }

    [Fact]
    public async Task Hub_that_only_cuts_is_given_up()
    {
        using HubFake hub = new();
        hub.With(Gguf);
        hub.Change = a => a with { CutAfter = 0 };
        HubException e = await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/model"));
        Assert.Equal(HubError.Network, e.Kind);
        Assert.Equal([1, 2, 4, 8, 16], hub.Delays.Select(d => d.TotalSeconds));
    }

    [Theory]
    [InlineData("../evil.gguf")]
    [InlineData("a/../../evil.gguf")]
    [InlineData("/etc/evil.gguf")]
    [InlineData("a\\\\..\\\\evil.gguf")]
    [InlineData("C:/evil.gguf")]
    [InlineData("a\\u0000.gguf")]
    [InlineData("a\\n.gguf")]
    [InlineData("a//b.gguf")]
    [InlineData("./a.gguf")]
    [InlineData("nul.gguf")]
    [InlineData("a./b.gguf")]
    [InlineData("")]
    public async Task Hostile_file_name_is_refused_and_nothing_is_written(string name)
    {
        using HubFake hub = new();
        hub.With(Gguf).ExtraListing = $$"""{"rfilename":"{{name}}","size":3}""";
        HubException e = await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/model"));
        Assert.Equal(HubError.Protocol, e.Kind);
        Assert.False(Directory.Exists(hub.CacheFolder));
    }

    [Theory]
    [InlineData("[]")]
    [InlineData("{}")]
    [InlineData("{\"sha\":\"../../x\",\"siblings\":[]}")]
    [InlineData("{\"sha\":\"0123456789abcdef0123456789abcdef01234567\",\"siblings\":[{}]}")]
    [InlineData("{\"sha\":\"0123456789abcdef0123456789abcdef01234567\",\"siblings\":[{\"rfilename\":5}]}")]
    [InlineData("{\"sha\":\"0123456789abcdef0123456789abcdef01234567\",\"siblings\":[{\"rfilename\":\"a\",\"lfs\":{\"sha256\":\"xyz\"}}]}")]
    [InlineData("{\"sha\":\"0123456789abcdef0123456789abcdef01234567\",\"siblings\":[{\"rfilename\":\"a\"},{\"rfilename\":\"A\"}]}")]
    [InlineData("<html>")]
    [InlineData("")]
    public async Task Listing_that_is_none_is_a_typed_error(string json)
    {
        using HubFake hub = new();
        hub.First.Enqueue(new HubAnswer(200, Encoding.UTF8.GetBytes(json)));
        Assert.Equal(HubError.Protocol, (await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/model"))).Kind);
    }

    [Theory]
    [InlineData("ftp://127.0.0.1/x")]
    [InlineData("file:///etc/passwd")]
    public async Task Redirect_to_something_else_is_refused(string location)
    {
        using HubFake hub = new();
        hub.First.Enqueue(new HubAnswer(302, [], ("Location", location)));
        Assert.Equal(HubError.Protocol, (await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/model"))).Kind);
    }

    [Fact]
    public async Task Two_pulls_at_once_bring_each_file_once()
    {
        using HubFake hub = new();
        hub.With("config.json", "model.safetensors", "tokenizer.json");
        string[] paths = await Task.WhenAll(Enumerable.Range(0, 6).Select(_ => Task.Run(() => hub.PullAsync("org/model"))));
        Assert.Single(paths.Distinct());
        Assert.Single(hub.Cdn.Requests);
        Assert.Equal(4, hub.ContentRequests);
        Assert.Equal(hub.File("model.safetensors"), File.ReadAllBytes(Path.Combine(paths[0], "model.safetensors")));
    }

    [Fact]
    public async Task No_room_is_told_before_anything_comes()
    {
        using HubFake hub = new();
        hub.With(Gguf);
        HubException e = await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/model", hub.Options() with { FreeSpace = _ => 100 }));
        Assert.Equal(HubError.Disk, e.Kind);
        Assert.Equal(0, hub.ContentRequests);
    }

    [Fact]
    public async Task Cache_that_cannot_be_written_is_a_typed_error()
    {
        using HubFake hub = new();
        using TempFolder folder = new();
        File.WriteAllText(folder["file"], "");
        hub.With(Gguf);
        Assert.Equal(HubError.Disk, (await Assert.ThrowsAsync<HubException>(() => hub.PullAsync("org/model", hub.Options() with { CacheFolder = folder["file"] }))).Kind);
    }

    private sealed class Collect(List<HubProgress> seen) : IProgress<HubProgress>
    {
        public void Report(HubProgress value) => seen.Add(value);
    }
}
