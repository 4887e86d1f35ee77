using System.Collections.Concurrent;

namespace Sluice.Tokenization;

/// <summary>A tokenizer that is put together from a normalizer, steps that cut, and a model of words, as Hugging Face's tokenizer.json describes it.</summary>
internal sealed class PipelineTokenizer : Tokenizer
{
    private readonly TokenizerPipeline _pipeline;
    private readonly AddedTokens? _normalizedAdded;
    private readonly ConcurrentBag<Worker> _idle = [];

    public PipelineTokenizer(TokenizerData data, TokenizerPipeline pipeline, bool addsBosByDefault = false)
        : base(data, addsBosByDefault, inText: pipeline.NormalizedAdded is { } apart ? [.. apart.Ids] : null)
    {
        _pipeline = pipeline;
        if (pipeline.NormalizedAdded is { } added)
        {
            _normalizedAdded = new AddedTokens(added.Texts, Enumerable.Range(0, added.Ids.Length), n => added.Ids[n],
                id => data.Kinds[id] is TokenKind.Control or TokenKind.Unknown, data.AddedOptions);
        }
    }

    /// <inheritdoc/>
    public override string Model => _pipeline.Model;

    /// <inheritdoc/>
    public override bool AddsSpacePrefix => _pipeline.AddsSpacePrefix;

    private protected override ByteStrings Pieces => _pipeline.Pieces;

    private protected override void EncodePlain(ReadOnlySpan<byte> text, in Segment segment, List<int> ids)
    {
        if (!_idle.TryTake(out Worker? worker))
        {
            worker = new Worker { Bytes = _pipeline.Bytes?.Invoke(), Words = _pipeline.Words?.Invoke() };
        }

        worker.Normalized.Clear();
        worker.Normalized.Limit = TextNormalizer.LimitFor(text.Length);
        ReadOnlySpan<byte> normalized = _pipeline.Normalizer is { } normalizer && normalizer.Apply(text, worker.Normalized) ? worker.Normalized.Span : text;
        if (_normalizedAdded is null)
        {
            EncodePart(normalized, segment.AtStart, worker, ids);
        }
        else
        {
            int start = 0;
            int search = 0;
            while (start < normalized.Length)
            {
                int id = _normalizedAdded.Find(normalized, search, start, segment.Controls, [], out int from, out search, out int stop);
                if (from > start)
                {
                    EncodePart(normalized[start..from], segment.AtStart && start == 0, worker, ids);
                }

                if (id < 0)
                {
                    break;
                }

                ids.Add(id);
                start = stop;
            }
        }

        _idle.Add(worker);
    }

    private void EncodePart(ReadOnlySpan<byte> text, bool atStart, Worker worker, List<int> ids)
    {
        if (text.IsEmpty)
        {
            return;
        }

        if (worker.Bytes is { } bytes)
        {
            if (_pipeline.PrefixSpace && text[0] != ' ')
            {
                worker.Prefixed.Clear();
                worker.Prefixed.Add((byte)' ');
                worker.Prefixed.Add(text);
                text = worker.Prefixed.Span;
            }

            bytes.Encode(text, ids);
            return;
        }

        if (_pipeline.Steps.Count == 0)
        {
            worker.Words!.Encode(text, ids);
            return;
        }

        Pieces pieces = worker.Pieces;
        pieces.Reset(text, atStart);
        foreach (PreTokenizerStep step in _pipeline.Steps)
        {
            step.Apply(pieces);
        }

        foreach ((int start, int end) in pieces.Spans)
        {
            worker.Words!.Encode(pieces.Text[start..end], ids);
        }
    }

    private sealed class Worker
    {
        public ByteBuffer Normalized { get; } = new();

        public ByteBuffer Prefixed { get; } = new();

        public Pieces Pieces { get; } = new();

        public BytePairEncoder? Bytes { get; init; }

        public WordEncoder? Words { get; init; }
    }
}
