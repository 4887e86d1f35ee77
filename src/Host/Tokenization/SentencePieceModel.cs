using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>What a SentencePiece model file (tokenizer.model; the message ModelProto of sentencepiece_model.proto) holds, checked.</summary>
internal sealed class SentencePieceModel
{
    private const int MostBytes = 1 << 28;

    private SentencePieceModel(string file) => File = file;

    /// <summary>The file's path.</summary>
    public string File { get; }

    /// <summary>The pieces, by id.</summary>
    public List<byte[]> Pieces { get; } = [];

    /// <summary>Their scores.</summary>
    public List<float> Scores { get; } = [];

    /// <summary>What they are for: the format's numbers are GGUF's.</summary>
    public List<TokenKind> Kinds { get; } = [];

    /// <summary>True for Unigram, false for BPE.</summary>
    public bool IsUnigram { get; private set; } = true;

    /// <summary>True where characters without a piece are spelt in bytes.</summary>
    public bool ByteFallback { get; private set; }

    /// <summary>The only piece of kind Unknown.</summary>
    public int UnknownId { get; private set; } = -1;

    /// <summary>-1 where there is none, as for the next two.</summary>
    public int BosId { get; private set; } = 1;

    public int EosId { get; private set; } = 2;

    public int PadId { get; private set; } = -1;

    /// <summary>The character map, or null.</summary>
    public CharsMap? CharsMap { get; private set; }

    /// <summary>The character map's bytes, or null.</summary>
    public byte[]? CharsMapBytes { get; private set; }

    /// <summary>True where a blank is put in front of a text.</summary>
    public bool AddsDummyPrefix { get; private set; } = true;

    /// <summary>True where blanks at the ends go, and others that follow each other count as one.</summary>
    public bool RemovesExtraSpaces { get; private set; } = true;

    /// <summary>Reads a file.</summary>
    /// <exception cref="ModelFormatException">It is malformed.</exception>
    /// <exception cref="UnsupportedModelException">It is of a kind that is not supported.</exception>
    public static SentencePieceModel Read(string path, byte[] bytes)
    {
        if (bytes.Length > MostBytes)
        {
            throw new ModelFormatException(path, "", $"is {bytes.Length:N0} bytes, and at most {MostBytes:N0} are read");
        }

        if (LooksLikeRanks(bytes))
        {
            throw new UnsupportedModelException(path, "", "is a list of byte strings and ranks (tiktoken's format), not a SentencePiece model; the tokenizer.json of the same model can be read");
        }

        SentencePieceModel model = new(path);
        ProtobufReader reader = new(path, "", bytes);
        while (reader.Next())
        {
            switch (reader.Field)
            {
                case 1:
                    model.ReadPiece(reader.ReadBytes());
                    break;
                case 2:
                    model.ReadTrainer(reader.ReadBytes());
                    break;
                case 3:
                    model.ReadNormalizer(reader.ReadBytes());
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }

        model.Check();
        return model;
    }

    // Llama 3's tokenizer.model: Base64, a blank, a number, line after line.
    private static bool LooksLikeRanks(ReadOnlySpan<byte> bytes)
    {
        int line = bytes.IndexOf((byte)'\n');
        int blank = bytes.IndexOf((byte)' ');
        return blank > 0 && line > blank + 1 && !bytes[(blank + 1)..line].ContainsAnyExceptInRange((byte)'0', (byte)'9')
            && System.Buffers.Text.Base64.IsValid(bytes[..blank]);
    }

    private void ReadPiece(ReadOnlySpan<byte> message)
    {
        if (Pieces.Count == TokenizerData.MostTokens)
        {
            throw new ModelFormatException(File, "pieces", $"are more than {TokenizerData.MostTokens:N0}");
        }

        string field = $"pieces[{Pieces.Count}]";
        ProtobufReader reader = new(File, field, message);
        byte[] text = [];
        float score = 0;
        int kind = (int)TokenKind.Normal;
        while (reader.Next())
        {
            switch (reader.Field)
            {
                case 1:
                    text = reader.ReadBytes().ToArray();
                    break;
                case 2:
                    score = reader.ReadFloat();
                    break;
                case 3:
                    kind = reader.ReadInteger();
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }

        if (text.Length == 0 || !System.Text.Unicode.Utf8.IsValid(text))
        {
            throw new ModelFormatException(File, field, text.Length == 0 ? "is empty" : "is not UTF-8");
        }

        if (!float.IsFinite(score) || kind is < 1 or > 6)
        {
            throw new ModelFormatException(File, field, $"has the score {score} and the type {kind:N0}; a finite number, and 1 to 6, are expected");
        }

        Pieces.Add(text);
        Scores.Add(score);
        Kinds.Add((TokenKind)kind);
    }

    private void ReadTrainer(ReadOnlySpan<byte> message)
    {
        ProtobufReader reader = new(File, "trainer_spec", message);
        while (reader.Next())
        {
            switch (reader.Field)
            {
                case 3:
                    int type = reader.ReadInteger();
                    IsUnigram = type switch
                    {
                        1 => true,
                        2 => false,
                        _ => throw new UnsupportedModelException(File, "trainer_spec.model_type", $"is {type:N0}, and 1 (Unigram) and 2 (BPE) are known"),
                    };
                    break;
                case 24:
                    if (reader.ReadBoolean())
                    {
                        throw new UnsupportedModelException(File, "trainer_spec.treat_whitespace_as_suffix", "is true, and only blanks in front of words are supported");
                    }

                    break;
                case 35:
                    ByteFallback = reader.ReadBoolean();
                    break;
                case 41:
                    BosId = reader.ReadInteger();
                    break;
                case 42:
                    EosId = reader.ReadInteger();
                    break;
                case 43:
                    PadId = reader.ReadInteger();
                    break;
                default:
                    reader.Skip();
                    break;
            }
        }
    }

    private void ReadNormalizer(ReadOnlySpan<byte> message)
    {
        ProtobufReader reader = new(File, "normalizer_spec", message);
        while (reader.Next())
        {
            switch (reader.Field)
            {
                case 2:
                    CharsMapBytes = reader.ReadBytes().ToArray();
                    CharsMap = GgufPipelines.ReadCharsMap(File, "normalizer_spec.precompiled_charsmap", CharsMapBytes);
                    break;
                case 3:
                    AddsDummyPrefix = reader.ReadBoolean();
                    break;
                case 4:
                    RemovesExtraSpaces = reader.ReadBoolean();
                    break;
                case 5:
                    if (!reader.ReadBoolean())
                    {
                        throw new UnsupportedModelException(File, "normalizer_spec.escape_whitespaces", "is false, and only blanks that are written as U+2581 are supported");
                    }

                    break;
                default:
                    reader.Skip();
                    break;
            }
        }
    }

    private void Check()
    {
        if (Pieces.Count == 0)
        {
            throw new ModelFormatException(File, "pieces", "are missing");
        }

        for (int id = 0; id < Pieces.Count; id++)
        {
            if (Kinds[id] == TokenKind.Unknown)
            {
                UnknownId = UnknownId < 0 ? id : throw new ModelFormatException(File, $"pieces[{id}]", $"is of type unknown, and so is piece {UnknownId:N0}");
            }
            else if (Kinds[id] == TokenKind.Byte && TokenPieces.ByteOf(Pieces[id]) < 0)
            {
                throw new ModelFormatException(File, $"pieces[{id}]", $"is of type byte and named {TokenizerData.Show(Pieces[id])}, and a form like <0x0A> is expected");
            }
        }

        if (UnknownId < 0)
        {
            throw new ModelFormatException(File, "pieces", "have none of type unknown");
        }

        // Any negative number means that there is none; a number beyond the pieces is what only a broken file has.
        RequirePiece("bos_id", BosId);
        RequirePiece("eos_id", EosId);
        RequirePiece("pad_id", PadId);
    }

    private void RequirePiece(string name, int id)
    {
        // The defaults 1 and 2 stand in files that name no numbers, small ones too.
        if (id >= Pieces.Count && id > 2)
        {
            throw new ModelFormatException(File, $"trainer_spec.{name}", $"is {id:N0}, and there are {Pieces.Count:N0} pieces");
        }
    }
}
